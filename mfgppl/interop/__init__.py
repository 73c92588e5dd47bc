"""Games and policies of other libraries: MFGLib and OpenSpiel. Each is an optional extra."""
