"""Files of other tools as data with the line of every value; nothing of them is ever executed."""
