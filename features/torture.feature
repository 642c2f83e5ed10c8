Feature: Servers are broken on purpose, and nothing acknowledged is lost
  The torture runs servers of its own, this very binary, in a scratch directory. It never comes near data.

  Scenario: A few faults, and nothing is lost
    When the rows "F1,F24,F29,F46" of the torture run on "scratch"
    Then the command succeeds
    And it prints "lost:                     nothing"
    And it prints "seed 7"

  Scenario: A directory with data is refused
    Given a running server
    And 10 jobs in "mail"
    When the server is stopped
    And the rows "F1" of the torture run on "data"
    Then the command ends with exit code 2
    And it prints "holds a data directory"
    When the server is started again
    Then "mail" has 10 waiting jobs

  Scenario: A row that does not exist
    When the rows "F999" of the torture run on "scratch"
    Then the command ends with exit code 2
    And it prints "millpond torture --list"
