"""jaxmr: MRI physics as composable, differentiable JAX functions."""
