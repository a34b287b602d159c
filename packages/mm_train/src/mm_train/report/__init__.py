"""`mm report`: what trainings wrote of themselves, as one page."""
