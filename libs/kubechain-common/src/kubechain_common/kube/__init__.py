"""What a controller needs of Kubernetes, and nothing else in the product speaks to the API server.

    client ---- informer ---- store            reads: a local, indexed copy of each kind
       |           |
       |     status_writer                     writes: minimal, guarded, visible to our own reads at once
       |
       +-- lease, event_recorder, secrets      one small file per duty

    workqueue <- controller                    what to reconcile next, and how to go on after an error

Requests are aiohttp and orjson; ``access`` gives the address, TLS and credentials, by way of ``kubernetes.aio`` where
they are unusual.
"""
