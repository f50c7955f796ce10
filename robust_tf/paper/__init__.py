"""The 2020 paper: its experiments, published numbers, claims, figures and report.

Nothing else imports it.
"""
