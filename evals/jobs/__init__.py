"""Independent jobs, keyed by what they compute, on this process, local processes or a Ray cluster.

``job.py`` is one job and its key, ``store.py`` keeps finished results, ``queue.py`` runs jobs and tries failed ones
again, ``executors.py`` opens one of the three executors: ``in_process.py``, ``local_processes.py`` (with ``worker.py``)
and ``ray_cluster.py``.
"""
