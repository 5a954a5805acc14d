"""Files that other programs read: NIfTI maps, raw data (ISMRMRD), dictionaries (HDF5), signals."""

from jaxmr.io.hdf5 import load_dictionary, save_dictionary
from jaxmr.io.nifti import read_map, write_maps
from jaxmr.io.raw import read_raw, write_raw
from jaxmr.io.signals import read_signals

__all__ = [
    "load_dictionary",
    "read_map",
    "read_raw",
    "read_signals",
    "save_dictionary",
    "write_maps",
    "write_raw",
]
