"""What everything else stands on: checks of arguments, dtypes, resets, dropout."""
