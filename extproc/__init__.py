"""Envoy external processor that puts Aim Security's guards on LLM traffic."""

from importlib.metadata import version

__version__ = version("aim-extproc")
