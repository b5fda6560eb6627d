"""This machine -> what it can run, and the line for what is missing."""

from lmk.runtime.doctor.diagnosis import examine
