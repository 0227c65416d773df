"""A Kubernetes control plane, NATS and the services as child processes of one supervisor on this machine.

Read from the top: ``plan`` says what runs, ``supervisor`` runs it, ``state`` tells everyone else how it goes;
``binaries`` and ``sources`` find or make what is to be run.
"""
