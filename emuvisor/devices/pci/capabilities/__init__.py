"""PCI capabilities: message-signalled interrupts (`msi`, `msix`) and power management (`power`)."""
