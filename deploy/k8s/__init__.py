"""Kubernetes: kustomize's bases, components and overlays; and what of them is made from files that others read too."""
