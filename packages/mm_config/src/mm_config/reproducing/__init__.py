"""Running a stored run again, and comparing what two runs left behind, bit by bit."""
