""".seq files, versions 1.2 to 1.5: from text to tables to events to blocks, and back.

Reference: the specification of the Pulseq file format.
"""
