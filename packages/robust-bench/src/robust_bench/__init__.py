"""How robust is this image model? Accuracy under attack and corruption, with intervals, tables and a report page."""
