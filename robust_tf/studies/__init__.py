"""Questions to finished models: sensor map, confusions, comparison."""
