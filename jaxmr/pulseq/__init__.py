"""Pulseq: .seq files in and out, and PyPulseq scripts as differentiable programs."""
