"""Functions of functions: derivatives, `vmap`, and checks of gradients."""
