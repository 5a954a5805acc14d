"""The table of relaxation times against the papers it quotes."""

import pytest

from jaxmr.objects import literature
from jaxmr.objects.literature_values import PROTON_DENSITY, SOURCES, TABLE


# Numbers of the abstracts of Wright 2008, Cox 2010, Stanisz 2005 and de Bazelaire 2004, ms.
@pytest.mark.parametrize(
    ("name", "field", "t1", "t2"),
    [
        ("white matter", 1.5, 646, 80),
        ("grey matter", 3.0, 1607, 76),
        ("white matter", 7.0, 1126, 47),
        ("muscle", 3.0, 1412, 50),
        ("liver", 3.0, 809, 34),
        ("blood", 1.5, 1441, 290),
    ],
)
def test_the_numbers_of_the_papers(name, field, t1, t2):
    tissue = literature(name, field)
    assert tissue.shape == ()
    assert (float(tissue.t1), float(tissue.t2)) == pytest.approx((t1 / 1e3, t2 / 1e3))


def test_spelling_of_names():
    expected = float(literature("grey matter").t1)
    assert float(literature("Gray Matter").t1) == expected
    assert float(literature("csf", 7.0).t2) == 0.9


def test_brain_tissues_alone_have_a_proton_density():
    assert float(literature("white matter").m0) == 0.691
    assert literature("liver").m0 is None


def test_an_unknown_tissue_is_told_the_nearest_and_all_names():
    with pytest.raises(ValueError, match=r"no tissue 'kidney'.*nearest: kidney.*it has blood, bone marrow"):
        literature("kidney")
    with pytest.raises(ValueError, match=r"no tissue 'xyz' in the literature table; it has blood"):
        literature("xyz")


def test_an_unknown_field_is_told_those_there_are():
    with pytest.raises(ValueError, match=r"no liver at 7 T in the literature table; it has 1\.5, 3 T"):
        literature("liver", field=7.0)


def test_the_table_is_physical_and_every_row_has_a_source():
    assert len({(entry.name, entry.field) for entry in TABLE}) == len(TABLE)
    for entry in TABLE:
        assert 0 < entry.t2 < entry.t1
        assert entry.source in SOURCES
    assert PROTON_DENSITY.keys() <= {entry.name for entry in TABLE}


def test_t1_grows_with_the_field():
    for name in {entry.name for entry in TABLE} - {"CSF"}:
        times = [entry.t1 for entry in sorted(TABLE, key=lambda e: e.field) if entry.name == name]
        assert times == sorted(times)
