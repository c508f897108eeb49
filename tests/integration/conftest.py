"""What the integration tests share: foreign sets, and one worker for whoever reads so few files."""

import pytest

from tests.integration import foreign


@pytest.fixture(scope="module")
def one_worker():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTHCOHORT_WORKERS", "1")
        yield


@pytest.fixture(scope="module")
def given(request, tmp_path_factory):
    """A, B and C, of as many patients as the module's ``SIZES`` say."""
    return foreign.sets(tmp_path_factory.mktemp("given"), **getattr(request.module, "SIZES", {}))
