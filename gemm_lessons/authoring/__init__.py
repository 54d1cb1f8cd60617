"""Generated texts: whatever can be made from data is made from it, and checked to be up to date."""
