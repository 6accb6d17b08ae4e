"""Run several nova-compute services in one process: ``python -m farm.computes FIRST COUNT --config-file FILE``.

A host costs 3 MiB so, instead of 150.
"""

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything of oslo, else timers never fire and no host is ever seen as up

import shlex  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402

import nova.conf  # noqa: E402
import nova.db.main.api  # noqa: E402
import os_brick  # noqa: E402
import os_vif  # noqa: E402
from nova.compute import rpcapi  # noqa: E402
from nova.conductor import rpcapi as conductor_rpcapi  # noqa: E402
from nova.objects import base as objects_base  # noqa: E402
from oslo_log import log as logging  # noqa: E402
from oslo_privsep import priv_context  # noqa: E402

from nova import config, objects, service, utils  # noqa: E402


def main():
    """Do what nova.cmd.compute does, once, and start a service for each host."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    config.parse_args(["nova-compute", *sys.argv[3:]])
    # it imports nova.compute.manager, whose periodic tasks take their pauses from the configuration when they are defined
    from farm import driver

    conf = nova.conf.CONF
    logging.setup(conf, "nova")
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    objects.register_all()
    os_brick.setup(conf)
    os_vif.initialize()
    driver.install()
    tasks = sorted(driver.manager.ComputeManager._periodic_spacing.items())
    sys.stdout.write("periodic tasks: " + ", ".join(f"{name} every {pause:g} s" for name, pause in tasks) + "\n")
    nova.db.main.api.DISABLE_DB_ACCESS = True
    objects_base.NovaObject.indirection_api = conductor_rpcapi.ConductorAPI()
    objects.Service.enable_min_version_cache()
    running = []
    for number in range(first, first + count):
        name = f"host-{number:03d}"
        conf.set_override("host", name)
        host = service.Service.create(host=name, binary="nova-compute", topic=rpcapi.RPC_TOPIC, topic_alt=rpcapi.RPC_TOPIC_ALT)
        host.start()
        running.append(host)
        sys.stdout.write(f"{name} up, {threading.active_count()} threads\n")
        sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
