"""The tape and what stands around it: how gradients are recorded and flow back."""
