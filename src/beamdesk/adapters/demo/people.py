"""The people and experiments of a demo deployment, as plain data.

Someone else puts them into the store and the password file; nothing here reads or writes anything. The ids lie in the ranges
that the privileged helper accepts: people 20000-29999 (a person's own group has the same number), experiments 30000-39999.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import ExperimentId, PersonId
from beamdesk.domain.person import Person, Role
from beamdesk.domain.text import Text

DAQ_UID: Final = 20000
"""Owner of raw data: the data acquisition, which is nobody's login."""

ADA = Person(PersonId("ada"), "ada", "Ada Lin", 20101, language="zh")
BOB = Person(PersonId("bob"), "bob", "Bob Meyer", 20102)
CHEN = Person(PersonId("chen"), "chen", "Chen Wei", 20103, language="zh")
OLGA = Person(PersonId("olga"), "olga", "Olga Petrova", 20104, role=Role.OPERATOR)

PEOPLE: Final = (ADA, BOB, CHEN, OLGA)

_PERIOD = (datetime(2026, 1, 5, tzinfo=UTC), datetime(2029, 1, 5, tzinfo=UTC))
"""Long-term proposals, so that the demo does not end in the middle of an afternoon."""

IMAGING = Experiment(
    id=ExperimentId("heps-2026-0147"),
    proposal="HEPS-2026-0147",
    title=Text(
        en="Pore network of a fibre-bearing sandstone before and after flooding",
        zh="含纤维砂岩驱替前后的孔隙网络",
    ),
    beamline="B7",
    beamline_title=Text(en="Hard X-ray imaging", zh="硬 X 射线成像"),
    team=frozenset({ADA.id, BOB.id}),
    starts=_PERIOD[0],
    ends=_PERIOD[1],
    folder="heps-2026-0147",
    gid=30147,
)

DIFFRACTION = Experiment(
    id=ExperimentId("heps-2026-0212"),
    proposal="HEPS-2026-0212",
    title=Text(
        en="Copper on ceria: structure and oxidation state of a shift catalyst",
        zh="铜/氧化铈变换催化剂的结构与价态",
    ),
    beamline="B8",
    beamline_title=Text(en="Powder diffraction and XAFS", zh="粉末衍射与 X 射线吸收精细结构"),
    team=frozenset({CHEN.id}),
    starts=_PERIOD[0],
    ends=_PERIOD[1],
    folder="heps-2026-0212",
    gid=30212,
)

EXPERIMENTS: Final = (IMAGING, DIFFRACTION)
