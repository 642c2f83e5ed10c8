Feature: Jobs that come by themselves
  A schedule pushes a job at each of its slots: exactly one a slot, by the clocks of its zone, however often it is put.

  Background:
    Given a running server

  Scenario: Each slot pushes one job, which knows its slot
    Given the schedule "pulse" with {"every_ms":1000,"job":{"queue":"checks","body":{"n":1}}}
    Then a worker that waits on "checks" gets a job of the schedule "pulse"
    And its slot is a whole second
    And before long the schedule "pulse" has fired 2 times

  Scenario: The same schedule again touches nothing
    Given the schedule "nightly" with {"cron":"0 3 * * *","zone":"Europe/Berlin","job":{"queue":"reports","body":{}}}
    When I put the schedule "nightly" with {"cron":"0 3 * * *","zone":"Europe/Berlin","job":{"queue":"reports","body":{}}}
    Then the schedule was "unchanged"
    When I put the schedule "nightly" with {"cron":"30 3 * * *","zone":"Europe/Berlin","job":{"queue":"reports","body":{}}}
    Then the schedule was "updated"

  Scenario: A schedule survives a restart and fires no slot twice
    Given the schedule "pulse" with {"every_ms":1000,"limit":3,"job":{"queue":"checks","body":null}}
    When the server is killed and started again
    Then before long the schedule "pulse" is ended
    And "checks" has 3 waiting jobs

  Scenario: A paused schedule fires when it is told to
    Given the schedule "nightly" with {"cron":"@daily","job":{"queue":"reports","body":{}}}
    When I pause the schedule "nightly"
    Then the schedule "nightly" is paused
    When I run the schedule "nightly"
    Then a worker that waits on "reports" gets a job of the schedule "nightly"
    When I resume the schedule "nightly"
    Then the schedule "nightly" is active
    When I remove the schedule "nightly"
    Then there is no schedule "nightly"

  Scenario: A slot is skipped while the job before has not ended
    Given the schedule "pulse" with {"every_ms":1000,"overlap":"skip","job":{"queue":"checks","body":null}}
    Then before long the schedule "pulse" has skipped a slot
    And "checks" has 1 waiting job

  Scenario Outline: Slots follow the clocks of their zone through <what>
    When I preview {"cron":"<cron>","zone":"<zone>","after":"<after>","n":3}
    Then the slots are <slots>

    Examples:
      | what                 | cron         | zone                | after                | slots                                              |
      | a spring gap         | 30 2 * * *   | Europe/Berlin       | 2026-03-28T12:00:00Z | 2026-03-29T01:00, 2026-03-30T00:30, 2026-03-31T00:30 |
      | an autumn fold       | 30 1 * * *   | America/New_York    | 2026-10-31T12:00:00Z | 2026-11-01T05:30, 2026-11-02T06:30, 2026-11-03T06:30 |
      | a fold, by the clock | */30 * * * * | Australia/Lord_Howe | 2026-04-04T14:45:00Z | 2026-04-04T15:00, 2026-04-04T15:30, 2026-04-04T16:00 |
      | a day left out       | 0 12 * * *   | Pacific/Apia        | 2011-12-29T10:00:00Z | 2011-12-29T22:00, 2011-12-30T10:00, 2011-12-30T22:00 |

  Scenario Outline: <what> is refused
    When I put the schedule "wrong" with <schedule>
    Then the call is refused with status 422 and the code "<code>"
    And the refusal says "<says>"

    Examples:
      | what                     | schedule                                                                     | code     | says             |
      | an hour that is none     | {"cron":"0 25 * * *","job":{"queue":"q","body":1}}                           | bad_cron | hour (character 3) |
      | a day that never comes   | {"cron":"0 0 30 2 *","job":{"queue":"q","body":1}}                           | bad_cron | day of month     |
      | a zone that is mistyped  | {"cron":"@daily","zone":"Europe/Berln","job":{"queue":"q","body":1}}         | bad_zone | Europe/Berlin    |
      | an interval too short    | {"every_ms":10,"job":{"queue":"q","body":1}}                                 | invalid  | every_ms         |

  Scenario: The command line
    When I run "millpond schedule put nightly --cron @daily --zone Europe/Berlin --queue reports"
    Then it prints "created"
    When I run "millpond schedules"
    Then it prints "@daily (Europe/Berlin)"
    When I run "millpond schedule next nightly -n 2"
    Then it prints "T"
    When I run "millpond schedule remove nightly"
    Then it prints "removed"
