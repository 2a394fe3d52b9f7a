"""Types, ops, IRs, passes and lowering: IR in, program out."""
