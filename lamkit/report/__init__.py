"""What is shown of results: parity samples, dp-test detail files, figures and the HTML page."""
