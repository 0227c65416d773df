"""The KubeChain API: resources as pydantic models, one package per served version."""
