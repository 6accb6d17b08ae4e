"""Start the agent."""

import sys

from beamdesk.srm.main import main

sys.exit(main())
