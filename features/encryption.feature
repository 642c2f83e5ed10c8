Feature: What people wrote cannot be read from the disk
  With a key, the server encrypts everything that it writes: bodies, names, errors, results. Without the key nobody reads it, not
  even the server. The key can change.

  Scenario: A body is not seen in any file
    Given the key file "keys"
    And a running server with the key file "keys"
    When I push the job "a" to "mail" with the body {"note":"canary-in-the-coal-mine"}
    Then no file of the data directory holds "canary-in-the-coal-mine"
    When the server is stopped
    Then no file of the data directory holds "canary-in-the-coal-mine"
    When a server is started with the key file "keys"
    And a worker fetches from "mail"
    Then it gets the job "a" as attempt 1 with the body {"note":"canary-in-the-coal-mine"}

  Scenario: Without a key it is seen
    Given a running server
    When I push the job "a" to "mail" with the body {"note":"canary-in-the-coal-mine"}
    And the server is stopped
    Then a file of the data directory holds "canary-in-the-coal-mine"

  Scenario: Without its key the directory does not open
    Given the key file "keys"
    And a running server with the key file "keys"
    And 10 jobs in "mail"
    When the server is stopped
    And a server is tried without a key file
    Then it is refused with exit code 3 and says "no key was given"

  Scenario: Another key does not open it either
    Given the key file "keys"
    And the key file "others"
    And a running server with the key file "keys"
    And 10 jobs in "mail"
    When the server is stopped
    And a server is tried with the key file "others"
    Then it is refused with exit code 3 and says "give the missing key as well"

  Scenario: A directory that was plain gets a key
    Given a running server
    When I push the job "a" to "mail" with the body {"note":"canary-in-the-coal-mine"}
    And the server is stopped
    Given the key file "keys"
    When the data directory is written again with the key file "keys"
    Then the command succeeds
    And no file of the data directory holds "canary-in-the-coal-mine"
    When a server is started with the key file "keys"
    And a worker fetches from "mail"
    Then it gets the job "a" as attempt 1

  Scenario: The key changes
    Given the key file "old"
    And a running server with the key file "old"
    And 10 jobs in "mail"
    When the server is stopped
    Given the key file "new" with a new key above those of "old"
    And a running server with the key file "new"
    And 10 jobs in "post"
    When the server is stopped
    And the data directory is written again with the key file "new"
    Then the command succeeds
    And it prints "no longer needed here"
    When the last key of "new" is taken away
    And a server is started with the key file "new"
    Then "mail" has 10 waiting jobs
    And "post" has 10 waiting jobs
