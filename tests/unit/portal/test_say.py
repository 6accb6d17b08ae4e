"""Values in the reader's words."""

from __future__ import annotations

import pytest

from beamdesk.portal.i18n import words_for
from beamdesk.portal.say import Say
from engine_kit import T0


@pytest.mark.parametrize(("mib", "said"), [(512, "512 MiB"), (2048, "2 GiB"), (1536, "1.5 GiB"), (21_695, "21.2 GiB")])
def test_memory_is_told_in_a_tenth_of_a_gibibyte_at_most(mib: int, said: str) -> None:
    assert Say(words_for("en"), T0).memory(mib) == said
