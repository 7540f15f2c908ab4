"""The faults of `python -m tests.mutants`, which the deep tests run, still fit the sources."""

import pytest

from tests.house.test_layers import ROOT
from tests.mutants.fault import all_faults


@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault.name)
def test_a_fault_still_stands_in_its_file_and_names_a_test(fault):
    places = 2 if "in both" in fault.name else 1
    assert (ROOT / fault.file).read_text().count(fault.old) == places
    assert fault.old != fault.new
    assert fault.test in (ROOT / fault.path).read_text()
