"""The acceptance table of `@function`: tests named by row, what they share, and the scoreboard."""
