"""From blocks to a `Sequence`: cut at RF centres, pulses with shapes they share, moments, repetitions as segments.

Numbers may be live. Times in s, moments in rad/m; what Pulseq counts in Hz and Hz/m becomes rad/s and rad/(s m) here.
"""
