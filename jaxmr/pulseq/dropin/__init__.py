"""PyPulseq on live numbers: its functions and classes under their own names, and scripts as functions of parameters."""
