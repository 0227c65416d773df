"""The kubechain command and the local control plane behind it."""
