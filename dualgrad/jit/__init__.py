"""`@function`: tracing Python functions into programs, and calling these faithfully."""
