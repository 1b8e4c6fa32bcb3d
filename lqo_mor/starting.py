"""What is done before anything else of the package is imported, which imports this module first."""

from lqo_mor.interrupts import quiet_while_importing

quiet_while_importing()
