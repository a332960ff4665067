"""Reading, checking and feeding labelled text."""
