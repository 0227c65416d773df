"""What an image is made of, as a CycloneDX document."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from scripts.images.contents import Contents, Package

CONTENT_ID = "kubechain:content-id"


def build_bom(title: str, version: str, content_id: str, contents: Contents) -> Bom:
    """The image as the subject, and its packages."""
    subject = Component(name=title, version=version, type=ComponentType.CONTAINER, bom_ref=content_id)
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, content_id),
        metadata=BomMetaData(component=subject, properties=[Property(name=CONTENT_ID, value=content_id)]),
        components=[build_component(package) for package in sorted(contents.packages)],
    )
    bom.register_dependency(subject, bom.components)
    return bom


def build_component(package: Package) -> Component:
    purl = build_purl(package)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        licenses=[LicenseFactory().make_from_string(package.licence)] if package.licence else [],
    )


def build_purl(package: Package) -> PackageURL:
    if package.ecosystem == "deb":
        return PackageURL("deb", "debian", package.name, package.version, {"arch": package.architecture})
    namespace, _, name = package.name.rpartition("/")
    return PackageURL(package.ecosystem, namespace or None, name, package.version)


def render_bom(bom: Bom) -> str:
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def write_bom(bom: Bom, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(render_bom(bom), encoding="utf-8")
    part.replace(path)


def read_content_id(path: Path) -> str:
    """Of which contents the document tells; empty when there is none."""
    try:
        properties = json.loads(path.read_text(encoding="utf-8"))["metadata"]["properties"]
    except (OSError, ValueError, KeyError):
        return ""
    return next((str(p["value"]) for p in properties if p["name"] == CONTENT_ID), "")
