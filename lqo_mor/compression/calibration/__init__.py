"""Compression with the inputs that really occur: spectra, sensitivities, refitted outputs, the joint fit."""
