import pytest
from cpu_guest import Core, Model


@pytest.fixture(params=[Model, Core], ids=["model", "core"])
def cpu(request):
    """Every hand-written case must hold for the reference model and for the C core."""
    return request.param()
