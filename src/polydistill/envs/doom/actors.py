"""What the levels hold beside walls, in DECORATE; the engine's own language for things (it predates ZScript).

All rewards of mazes and navigation go through one counter, the player's armour: nothing hurts there. ACS scripts are
not needed: a door thinks for itself, and the goal moves the player on.
"""

from __future__ import annotations

# Editor numbers; the engine's own.
PLAYER_START, DEATHMATCH_START, TELEPORT_DESTINATION = 1, 11, 14
# Editor numbers; ours.
APPLE, GOAL, PARCEL, BASE, DOOR_KEEPER, BADGE = range(20_001, 20_007)

#: Points.
APPLE_POINTS, GOAL_POINTS, PARCEL_POINTS, DELIVERY_POINTS = 1, 10, 1, 5
TAG_POINTS, BADGE_POINTS = 1.0, 0.25

DOOR_TICS = 210  # a door thinks every 6 seconds

#: Thing ids: where the goal sends the player, and the player once sent.
STARTS_TID, PLAYER_TID = 900, 901

DECORATE = f"""
ACTOR PdOne : ArmorBonus
{{
  Armor.SaveAmount 1
  Armor.MaxSaveAmount 1000000
  +INVENTORY.ALWAYSPICKUP
  -COUNTITEM
}}
ACTOR PdFive : PdOne
{{
  Armor.SaveAmount 5
}}
ACTOR PdTen : PdOne
{{
  Armor.SaveAmount 10
}}
ACTOR PdCarried : Inventory
{{
  Inventory.MaxAmount 1000
}}
ACTOR PdPickup : CustomInventory
{{
  Radius 24
  Height 40
  Inventory.PickupMessage ""
  Inventory.PickupSound ""
}}
ACTOR PdApple : PdPickup {APPLE}
{{
  States
  {{
  Spawn:
    MEDI A -1 Bright
    Stop
  Pickup:
    TNT1 A 0 A_GiveInventory("PdOne")
    Stop
  }}
}}
ACTOR PdGoal : PdPickup {GOAL}
{{
  +INVENTORY.ALWAYSRESPAWN
  Inventory.RespawnTics 1
  States
  {{
  Spawn:
    SOUL A -1 Bright
    Stop
  Pickup:
    TNT1 A 0 Thing_ChangeTID(0, {PLAYER_TID})
    TNT1 A 0 A_GiveInventory("PdTen")
    Stop
  HideDoomish:
    TNT1 A 1
    TNT1 A 4 TeleportOther({PLAYER_TID}, {STARTS_TID}, 0)
    TNT1 A 0 A_RestoreSpecialPosition
    TNT1 A 1 A_RestoreSpecialDoomThing
    Stop
  }}
}}
ACTOR PdParcel : PdPickup {PARCEL}
{{
  States
  {{
  Spawn:
    STIM A -1 Bright
    Stop
  Pickup:
    TNT1 A 0 A_GiveInventory("PdCarried", 1)
    TNT1 A 0 A_GiveInventory("PdOne")
    Stop
  }}
}}
ACTOR PdBase : PdPickup {BASE}
{{
  States
  {{
  Spawn:
    COLU A -1 Bright
    Stop
  Pickup:
    TNT1 A 0 A_JumpIfInventory("PdCarried", 1, "Deliver")
    Fail
  Deliver:
    TNT1 A 0 A_TakeInventory("PdCarried", 1)
    TNT1 A 0 A_GiveInventory("PdFive")
    Fail
  }}
}}
ACTOR PdDoorKeeper {DOOR_KEEPER}
{{
  +NOBLOCKMAP
  +NOGRAVITY
  +NOSECTOR
  States
  {{
  Spawn:
    TNT1 A 1
  Think:
    TNT1 A 0 A_Jump(128, "Shut")
    TNT1 A {DOOR_TICS} Door_Open(args[0], 64)
    Goto Think
  Shut:
    TNT1 A {DOOR_TICS} Door_Close(args[0], 64)
    Goto Think
  }}
}}
ACTOR PdNoFog : TeleportFog replaces TeleportFog
{{
  States
  {{
  Spawn:
    TNT1 A 1
    Stop
  }}
}}
ACTOR PdTagger : Pistol
{{
  Weapon.AmmoUse 0
  Weapon.AmmoGive 0
  +WEAPON.AMMO_OPTIONAL
  +WEAPON.NOAUTOFIRE
  AttackSound ""
  States
  {{
  Ready:
    PISG A 1 A_WeaponReady
    Loop
  Fire:
    PISG B 1 A_FireBullets(0, 0, 1, 200, "BulletPuff", 0)
    PISG C 12
    PISG B 3 A_ReFire
    Goto Ready
  Flash:
    TNT1 A 1
    Goto LightDone
  }}
}}
ACTOR PdTagPlayer : DoomPlayer
{{
  Player.StartItem "PdTagger"
  Player.DisplayName "Tag"
}}
ACTOR PdBadge : HealthBonus {BADGE}
{{
  Radius 24
  Height 40
  Inventory.PickupMessage ""
  Inventory.PickupSound ""
  +INVENTORY.ALWAYSRESPAWN
  Inventory.RespawnTics 350
  States
  {{
  Spawn:
    BON1 ABCDCB 6 Bright
    Loop
  }}
}}
"""

TAG_MAPINFO = """
gameinfo
{
  playerclasses = "PdTagPlayer"
}
"""
