"""Forward + first rows → what is known before the first row is delivered."""
