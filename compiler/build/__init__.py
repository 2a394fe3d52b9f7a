"""The scalar formula language and the maths written in it."""
