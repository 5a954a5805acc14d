"""Units as plain floats, and the one gyromagnetic ratio.

Everything inside jaxmr is SI: seconds, hertz, radians, metres, tesla. `12 * ms` is
`0.012`, `30 * deg` is `0.5236`; nothing else happens.
"""

import math

GAMMA = 2 * math.pi * 42.577478518e6
"""Gyromagnetic ratio of the free proton, rad/(s T) (CODATA 2018)."""

s = 1.0
ms = 1e-3
us = 1e-6
m = 1.0
cm = 1e-2
mm = 1e-3
um = 1e-6
Hz = 1.0
kHz = 1e3
T = 1.0
mT = 1e-3
uT = 1e-6
rad = 1.0
deg = math.pi / 180
