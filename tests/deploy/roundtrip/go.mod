module csi-udisk/tests/deploy/roundtrip

go 1.25.0
