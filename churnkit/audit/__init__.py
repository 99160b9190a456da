"""Audits: are the features right in time, and are they worth having?"""
