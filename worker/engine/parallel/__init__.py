"""The ranks of a group and everything they tell each other; every collective is in here."""
