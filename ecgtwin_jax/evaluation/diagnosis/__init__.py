"""Do a patient's twins help to diagnose the patient?"""
